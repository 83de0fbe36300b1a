"""Measure the lab's speed in turn with its reference stacks, on the same machine."""
