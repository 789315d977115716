"""`python -m cli` in a checkout: the console command. Its modules are imported as `frozen_cache.cli` all the same."""

from frozen_cache.cli.main import run

if __name__ == "__main__":
    run()
