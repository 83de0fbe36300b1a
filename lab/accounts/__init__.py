"""What became of each request: the join of three logs, fates, figures."""
