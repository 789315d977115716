from frozen_cache.cache.dataset import CachedBatch as CachedBatch
from frozen_cache.cache.dataset import CachedViews as CachedViews
from frozen_cache.cache.dataset import collate_views as collate_views
from frozen_cache.cache.view import CachedView as CachedView
from frozen_cache.errors import FrozenCacheError as FrozenCacheError
from frozen_cache.inference.instances import Instances as Instances
from frozen_cache.inference.segmenter import InstanceSegmenter as InstanceSegmenter
from frozen_cache.stages.python import evaluate as evaluate
from frozen_cache.stages.python import extract as extract
from frozen_cache.stages.python import train as train

__version__: str
__all__: list[str]
