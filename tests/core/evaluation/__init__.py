"""Tests of openrag_core.evaluation."""
