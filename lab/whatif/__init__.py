"""What each method would have done with the traffic of a log."""
