"""One rule for each way in which a method decides, judged from the logs; and hard facts."""
