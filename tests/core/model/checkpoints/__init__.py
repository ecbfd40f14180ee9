"""Tests of openrag_core.model.checkpoints."""
