"""Models to explain, by name."""

from seewhy.zoo.loaded import Loaded as Loaded
from seewhy.zoo.loading import load as load
