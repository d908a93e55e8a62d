"""Scenes: what is in a clip, and where everything is at every moment.

Units. Lengths are in short sides of the frame, with the origin at the frame's centre, x to the right and y DOWN.
Time u is in clip lengths: frame k of T shows u = k / T, so every second frame of a 16-frame clip is the 8-frame clip.
Angles are in radians, clockwise on the screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

SHAPES = ("circle", "square", "triangle", "cross", "ring", "moon")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "pink", "white")
SIZES = ("small", "medium", "large")
SPEEDS = ("slow", "fast")
DIRECTIONS = {  # unit vectors on the screen
    "right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0),
    "up and right": (math.sqrt(0.5), -math.sqrt(0.5)), "up and left": (-math.sqrt(0.5), -math.sqrt(0.5)),
    "down and right": (math.sqrt(0.5), math.sqrt(0.5)), "down and left": (-math.sqrt(0.5), math.sqrt(0.5)),
}  # fmt: skip
SLIDES = tuple(f"slides {direction}" for direction in DIRECTIONS)
WALL = "passes behind a wall"
MOTIONS = ("stays still", *SLIDES, "bounces", "orbits", "spins", "grows", "shrinks", WALL)
BACKGROUNDS = ("black", "grey", "striped", "checkered")
CAMERAS = ("still", "pans left", "pans right")
RELATIONS = ("left of", "above", "in front of", "bumps into")
LEVELS = ("simple", "full")
SPLITS = ("train", "test", "held_out")

# Combinations that training never sees: every shape gives up one colour and one motion.
HELD_OUT_COLOURS = dict(zip(SHAPES, ("green", "pink", "yellow", "blue", "orange", "red"), strict=True))
HELD_OUT_MOTIONS = dict(
    zip(SHAPES, ("slides left", "bounces", "slides up", "orbits", "slides down and right", "grows"), strict=True)
)

RADIUS = {"small": 0.125, "medium": 0.17, "large": 0.22}  # short sides
REACH = {"circle": 1.0, "square": 0.88, "triangle": 1.15, "cross": 1.05, "ring": 1.0, "moon": 1.0}  # upright, radii
SPIN_REACH = {**REACH, "square": 1.25, "cross": 1.12}  # the corners sweep further than the sides
SLIDE = {"slow": 0.28, "fast": 0.45}  # short sides per clip
TURNS = {"slow": 0.75, "fast": 1.25}  # orbits, turns per clip
SPIN = {"slow": math.radians(120), "fast": math.radians(270)}  # per clip; under half a square's symmetry per frame
SWELL = {"slow": 0.5, "fast": 0.9}  # growth of the radius over the clip, in mean radii
PAN = 0.375  # short sides per clip
GRAVITY = 8.0  # short sides per clip squared
RESTITUTION = 0.8  # speed after a bounce over speed before it
TEXTURE_PERIOD = 0.25  # short sides, stripes and checks
GAP = 0.03  # what two objects that do not touch keep between them
CLOCK = tuple(k / 8 for k in range(9))  # when a scene is checked: inside the frame, nothing overlapping

INVISIBLE = {("circle", "spins"), ("ring", "spins")}  # nobody can see a disc turn


@dataclass(frozen=True)
class Object:
    """One thing in a scene: what it is called, and the constants of its path."""

    shape: str
    colour: str
    size: str
    motion: str
    speed: str = ""  # "slow" or "fast"; "" where the motion has one speed
    turn: str = ""  # "clockwise" or "anticlockwise" (orbits, spins); "left" or "right" (behind the wall)
    x: float = 0.0  # where it starts; the centre of its orbit if it orbits
    y: float = 0.0
    phase: float = 0.0  # angle at u = 0, of an orbit or a spin
    orbit: float = 0.0  # radius of the orbit
    velocity: tuple[float, float] = (0.0, 0.0)  # short sides per clip
    starts: float = -math.inf  # it moves from this moment ...
    stops: float = math.inf  # ... to this one
    floor: float = 0.0  # the y at which its centre bounces

    @property
    def radius(self) -> float:
        """Its mean radius over the clip, in short sides."""
        return RADIUS[self.size]

    @property
    def reach(self) -> float:
        """The furthest point of its outline from its centre on an axis of the screen, in mean radii."""
        return (SPIN_REACH if self.motion == "spins" else REACH)[self.shape]

    @property
    def wall_width(self) -> float:
        """The width of the wall it passes behind (just wide enough to hide it), 0 if there is none."""
        return 2.1 * self.radius if self.motion == WALL else 0.0

    def pose(self, u: float) -> tuple[float, float, float, float]:
        """(x, y, radius, angle) in the world at time u; any real u, also before and after the clip."""
        x, y, radius, angle = self.x, self.y, self.radius, 0.0
        if self.motion == "bounces":
            y = self.floor - bounce_height(u, self.floor - self.y)
        elif self.motion == "orbits":
            theta = self.phase + self._sign() * math.tau * TURNS[self.speed] * u
            x, y = x + self.orbit * math.cos(theta), y + self.orbit * math.sin(theta)
        elif self.motion == "spins":
            angle = self.phase + self._sign() * SPIN[self.speed] * u
        elif self.motion in ("grows", "shrinks"):
            swell = SWELL[self.speed] * (u - 0.5)
            radius *= max(0.0, 1 + swell if self.motion == "grows" else 1 - swell)
        elif self.motion != "stays still":
            moved = min(max(u, self.starts), self.stops) - max(0.0, self.starts)
            x, y = x + self.velocity[0] * moved, y + self.velocity[1] * moved
        return x, y, radius, angle

    @cached_property
    def path(self) -> tuple[tuple[float, float, float, float], ...]:
        """Its poses at the moments of CLOCK."""
        return tuple(self.pose(u) for u in CLOCK)

    def _sign(self) -> float:
        return 1.0 if self.turn == "clockwise" else -1.0


@dataclass(frozen=True)
class Relation:
    """`objects[a]` is `kind` `objects[b]`: left of, above, in front of, bumps into."""

    kind: str
    a: int
    b: int


@dataclass(frozen=True)
class Scene:
    """Everything that is in a clip. `objects` stand in depth order, the furthest first."""

    objects: tuple[Object, ...]
    background: str = "black"
    camera: str = "still"
    relation: Relation | None = None
    aspect: float = 1.0  # width over height
    texture: float = 0.0  # where the stripes begin, in short sides

    @property
    def half(self) -> tuple[float, float]:
        """Half the frame's width and height, in short sides."""
        return max(self.aspect, 1.0) / 2, max(1 / self.aspect, 1.0) / 2

    def camera_x(self, u: float) -> float:
        """How far to the right the camera has moved by time u, in short sides."""
        return pan(self.camera) * u

    @property
    def wall(self) -> tuple[float, float] | None:
        """The left and right edge of the wall, or None."""
        width = max(obj.wall_width for obj in self.objects)
        return (-width / 2, width / 2) if width else None

    @property
    def held_out(self) -> bool:
        """Whether any of its objects is a combination that training never sees."""
        return any(held_out(obj.shape, obj.colour, obj.motion) for obj in self.objects)


def held_out(shape: str, colour: str | None = None, motion: str | None = None) -> bool:
    """Whether this combination of a shape with a colour or a motion is kept from training."""
    return colour == HELD_OUT_COLOURS[shape] or motion == HELD_OUT_MOTIONS[shape]


def pan(camera: str) -> float:
    """The camera's velocity to the right, in short sides per clip."""
    return {"still": 0.0, "pans right": PAN, "pans left": -PAN}[camera]


def bounce_height(u: float, drop: float) -> float:
    """Height above the floor at time u of a thing let go at height `drop` > 0 at u = 0.

    Free fall h = drop - GRAVITY u^2 / 2, then parabolas that leave the floor with RESTITUTION times the last speed.
    """
    fall = math.sqrt(2 * drop / GRAVITY)
    if u <= fall:
        return drop - GRAVITY * u * u / 2
    speed, left = GRAVITY * fall * RESTITUTION, u - fall
    while left > 2 * speed / GRAVITY and speed > 0.01:  # each flight lasts 2 v / g
        left -= 2 * speed / GRAVITY
        speed *= RESTITUTION
    return max(0.0, speed * left - GRAVITY * left * left / 2)
