"""Every picture and film that the notebooks show. Each function returns a `Picture`: a cell's last line
shows it.

Films play in place (`show_film`, `show_films`) or lie as strips (`film_strip`, `film_strips`); pictures
stand in grids (`image_grid`, `before_after`) or beside their texts (`pairs_table`); runs are held against
reference runs (`loss_curve`, `verdict`) and shares against their intervals (`bars_with_intervals`,
`wilson`); `road_map`, `road_strip`, `sora_parts`,
`dit_blocks` and `patches_diagram` draw the course's plans, `made_of` is a table of what files take from chapters;
`marginal_paths` shows why a flow bends, `prediction_errors` what it is best to predict. `explorer` puts
sliders on what was drawn beforehand. For a plot of your own:
`fig, axes = figure()`, then `picture(fig, alt="what it shows")`.
"""

from soralab.figures.bands import Band, Verdict, inside_band, verdict
from soralab.figures.curves import bars_with_intervals, ema, loss_curve, read_log, wilson
from soralab.figures.diagrams import road_map, sora_parts
from soralab.figures.explorer import explorer
from soralab.figures.films import film_strip, film_strips, show_film, show_films
from soralab.figures.four_blocks import dit_blocks
from soralab.figures.grids import before_after, image_grid
from soralab.figures.imports import made_of
from soralab.figures.pairs import pairs_table
from soralab.figures.patches import patches_diagram
from soralab.figures.paths import marginal_paths
from soralab.figures.pictures import Picture, picture
from soralab.figures.predictions import prediction_errors
from soralab.figures.strip import road_strip
from soralab.figures.style import figure
from soralab.figures.syllabus import CHAPTERS
from soralab.figures.watched import Watched

__all__ = [
    "CHAPTERS",
    "Band",
    "Picture",
    "Verdict",
    "Watched",
    "bars_with_intervals",
    "before_after",
    "dit_blocks",
    "ema",
    "explorer",
    "figure",
    "film_strip",
    "film_strips",
    "image_grid",
    "inside_band",
    "loss_curve",
    "made_of",
    "marginal_paths",
    "pairs_table",
    "patches_diagram",
    "picture",
    "prediction_errors",
    "read_log",
    "road_map",
    "road_strip",
    "show_film",
    "show_films",
    "sora_parts",
    "verdict",
    "wilson",
]
