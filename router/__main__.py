"""`python -m router`, and what the command `router` runs."""

import sys

try:
    from router.cli import main
except KeyboardInterrupt:  # Ctrl-C while it is being loaded: quietly, with the shell's status
    sys.exit(130)

if __name__ == "__main__":
    main()
