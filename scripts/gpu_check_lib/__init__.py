"""Steps of scripts/gpu_check that are too long for it."""

import sys
from pathlib import Path

# What runs leave is read by the product.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
