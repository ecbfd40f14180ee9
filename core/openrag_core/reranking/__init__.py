"""Rerankers: each module needs the extra that its model comes with."""
