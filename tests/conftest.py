"""Makes tests/support importable as ``support`` (tests/ has no __init__.py: Protenix installs a package of that name)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
