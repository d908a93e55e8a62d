"""The toys that stand in for the course in some tests: they go with their test, whatever was imported before it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_exercises

from soralab.exercises import exercise


def test_the_courses_own_exercises_come_back(tmp_path):
    own = exercise("unet.valid_sizes")
    with pytest.MonkeyPatch.context() as patch:
        toy_exercises.install(patch, tmp_path)
        assert exercise("unet.centre_crop").title == "Toy centre_crop"
        with pytest.raises(ValueError, match="which there is not"):
            exercise("unet.valid_sizes")
    assert exercise("unet.valid_sizes") is own
    with pytest.raises(ValueError, match="which there is not"):
        exercise("unet.centre_crop")


def test_so_they_do_where_nothing_was_imported_before(tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        import pytest, toy_exercises
        from soralab.exercises import exercise
        with pytest.MonkeyPatch.context() as patch:
            toy_exercises.install(patch, Path(sys.argv[1]))
            exercise("unet.centre_crop")
        print(exercise("unet.valid_sizes").name)
    """
    here = Path(__file__).parent
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=here, capture_output=True, text=True,
                          env=paths, timeout=120)  # fmt: skip
    assert done.stdout.strip() == "unet.valid_sizes", done.stderr
