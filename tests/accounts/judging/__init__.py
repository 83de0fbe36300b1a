"""Tests of the judging of run folders."""
