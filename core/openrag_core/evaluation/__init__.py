"""Measuring: tasks, the adaptive curve, a calibrated gate (extra: eval)."""
