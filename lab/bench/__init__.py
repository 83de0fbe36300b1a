"""Measure the lab's speed, alternating with its reference stacks on the same machine."""
