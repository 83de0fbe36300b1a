"""Account for each request: the join of three logs, fates, figures."""
