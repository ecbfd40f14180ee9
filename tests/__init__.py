"""Tests mirror the tree: tests/core for openrag_core, then one folder per face."""
