"""The command `frugal`, also as `python -m frugal`."""

from frugal.interrupts import ends_at_once


def main() -> None:
    """Carry out a command."""
    with ends_at_once():
        from frugal.lab.live.cli import main as command
    command()


if __name__ == "__main__":
    main()
