"""`python -m frozen_cache`: the console command."""

from frozen_cache.cli.main import run

if __name__ == "__main__":
    run()
