"""`python -m bench`: the overhead of the router (see overhead.py)."""

from bench.overhead import main

raise SystemExit(main())
