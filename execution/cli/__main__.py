import sys

from execution.cli.app import main

sys.exit(main())
