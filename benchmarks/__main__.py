"""Run every benchmark and print its lines: `python -m benchmarks`."""

from benchmarks import spine

if __name__ == "__main__":
    for line in spine.run():
        print(line, flush=True)
