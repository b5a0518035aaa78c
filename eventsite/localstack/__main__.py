"""`python -m eventsite.localstack`."""

import sys

from eventsite.localstack.cli import main

if __name__ == "__main__":
    sys.exit(main())
