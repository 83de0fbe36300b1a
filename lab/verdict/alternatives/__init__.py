"""What nginx may have done instead, and what the evidence says about it."""
