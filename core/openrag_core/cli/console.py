"""Where the command line writes to: results to `out`, progress and errors to `err`."""

from rich.console import Console

out = Console()
err = Console(stderr=True)
