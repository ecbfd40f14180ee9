"""Checkpoint folders: ours, adapter-only, as published, as the released training leaves them."""
