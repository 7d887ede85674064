"""Flags of `explain.py` in both builds, and the values they make."""

import pathlib

from absl import flags

from common import errors
from common.clips.clip_store import SPLITS
from common.command_line import clips_flags, launch_flags, model_flags
from common.explaining import gradcam_maps, masks, methods, perturbations
from common.explaining.explanation_loop import TARGETS, ExplainSettings
from common.explaining.methods import MethodConfig
from common.models import configs
from common.runs import clip_format

_MASK, _CAM = masks.MaskConfig(), gradcam_maps.GradCamConfig()

for _module in (clips_flags, model_flags):
    flags.adopt_module_key_flags(_module)  # So that --help lists them.

DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute; auto: a GPU if there is one.")
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Same bits for the same input, at some cost in speed on a GPU. On a CPU it is so anyway."
)
_RUN = flags.DEFINE_string("run", None, "Run directory, of either framework.")
_MODEL = flags.DEFINE_string("model", None, model_flags.MODEL_HELP)
VIDEO = flags.DEFINE_multi_string(
    "video",
    [],
    "Explain this video, or those in this folder, in place of clips of a store; may be given several times.",
)
_INPUT_SHAPE = flags.DEFINE_list(
    "input_shape",
    None,
    "With --video: frames, height and width (px) that videos become for a foreign model. Unset: what the model says.",
)
_CLIPS = flags.DEFINE_string("clips", None, f"{clips_flags.HELP} Unset: the one a run was trained on.")
_SPLIT = flags.DEFINE_enum("split", "validation", list(SPLITS), "Split to explain.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Clips at most, the first of those chosen; 0: all.", lower_bound=0)
_PER_CLASS = flags.DEFINE_integer(
    "limit_per_class", 0, "Clips of each class at most, the first ones; 0: all.", lower_bound=0
)
_VIDEO_IDS = flags.DEFINE_list("video_ids", [], "Only these clips, separated by commas.")
_CLASSES = flags.DEFINE_list("classes", [], "Only clips of these classes: names or numbers, separated by commas.")
_TARGET = flags.DEFINE_enum("target", "guess", list(TARGETS), "Class to explain: the model's guess, or the label.")
_GAME = flags.DEFINE_enum(
    "game",
    _MASK.game,
    list(masks.GAMES),
    "delete: perturb the fewest frames that take the class away. preserve: keep the fewest frames that hold it.",
)
_FORM = flags.DEFINE_enum(
    "form",
    _MASK.form,
    list(masks.FORMS),
    "soft: values between 0 and 1, as the paper's. hard: 0 and 1, from the best interval on by single flips of frames.",
)
_AREA = flags.DEFINE_integer("area", _MASK.area, "Frames of a hard mask; 0: as many as Eq. 1 decides.", lower_bound=0)
_ORACLE = flags.DEFINE_enum(
    "oracle",
    _MASK.oracle,
    list(masks.ORACLES),
    "Best single interval: of all (full), or from coarse to fine (coarse; unset, with --video).",
)
_STOP = flags.DEFINE_enum(
    "stop",
    _MASK.stop,
    list(masks.STOPS),
    "When a soft mask is learnt: after all steps of Adam (iterations), or when it has converged by quasi-Newton steps "
    "(unset, with --video).",
)
_KIND = flags.DEFINE_enum("kind", _MASK.kind, list(perturbations.KINDS), "Perturbation that the mask is learnt with.")
_ITERATIONS = flags.DEFINE_integer(
    "iterations",
    _MASK.iterations,
    "Steps of Adam for each mask; with --stop=converged, evaluations at most.",
    lower_bound=1,
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", _MASK.learning_rate, "Of Adam, for the mask's logits.")
_LAMBDA_1 = flags.DEFINE_float("lambda_1", _MASK.lambda_1, "Weight of the mask's length (Eq. 1).")
_LAMBDA_2 = flags.DEFINE_float("lambda_2", _MASK.lambda_2, "Weight of the mask's total variation (Eq. 1).")
_BETA = flags.DEFINE_float("beta", _MASK.beta, "Power of the total variation, at least 1.")
_START = flags.DEFINE_enum(
    "start",
    _MASK.start,
    list(masks.STARTS),
    "Where the search starts: the paper's centred window, the best single interval (oracle), or both (multi; unset, "
    "with --video).",
)
_COMPAT = flags.DEFINE_enum(
    "compat", _MASK.compat, list(masks.COMPATS), "released: total variation and first window as the released code's."
)
_ENDS = flags.DEFINE_enum(
    "ends",
    _MASK.ends,
    list(masks.ENDS),
    "counted: a mask that begins or ends with the clip pays for that end as for any other (total variation, Eq. 1).",
)
_CAM_ENDPOINT = flags.DEFINE_string(
    "cam_endpoint", "", "Endpoint of Grad-CAM. Unset: the paper's (section 4.2); a foreign model's last."
)
_CAM_WEIGHTS = flags.DEFINE_enum(
    "cam_weights", _CAM.weights, list(gradcam_maps.WEIGHTS), "Mean of the gradient over each frame (Eq. 2) or the clip."
)
_CAM_SCORE = flags.DEFINE_enum("cam_score", _CAM.score, list(gradcam_maps.SCORES), "What Grad-CAM differentiates.")
_CAM_TIME = flags.DEFINE_enum("cam_time", _CAM.time, list(gradcam_maps.TIMES), "How coarse maps become T frames.")
_METHODS = flags.DEFINE_list("methods", [], f"Other methods to ask, separated by commas: {', '.join(methods.METHODS)}.")
_EVALUATIONS = flags.DEFINE_integer(
    "evaluations", MethodConfig.evaluations, "Masks that shapley and rise score for a clip at most.", lower_bound=2
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(configs.PRECISIONS),
    "Of the model's computation. bfloat16 is faster on hardware that has it, and not the same computation.",
)
_BATCH = flags.DEFINE_integer("batch", 0, "Clips at a time; 0: what fits the memory.", lower_bound=0)
BRIEF = flags.DEFINE_bool("brief", False, "Print means over clips alone, without classes and what the columns mean.")
_REPORT = flags.DEFINE_string(
    "report", None, "Folder of a page with these explanations, to be made or replaced, as common/report.py makes them."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace explanations of other clips or settings, finished or not; unset, they are refused."
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "File to write, with --video a folder that gets one for each video. "
    "Unset: explanations.h5 in the run directory, or in models/NAME; with --video explained/.",
)
_ONLY_STORES = (
    _CLIPS,
    _SPLIT,
    _LIMIT,
    _PER_CLASS,
    _VIDEO_IDS,
    _CLASSES,
    _TARGET,
    _METHODS,
    BRIEF,
    _REPORT,
    _OVERWRITE,
    *clips_flags.ALL,
    *launch_flags.ALL,
)


def _quick(flag: flags.FlagHolder) -> str:
    """Returns a flag's value; of a video, where it is not given, what is quick, as in `explain_clip`."""
    return str(getattr(masks.FAST, flag.name) if VIDEO.value and not flag.present else flag.value)


def games() -> tuple[str, ...]:
    """Returns which masks of a video are learnt: of both games, or of the one that --game names."""
    return (_GAME.value,) if _GAME.present else ("delete", "preserve")


def input_shape() -> tuple[int, int, int] | None:
    """Returns T, H, W that videos are to become, if the user says it."""
    return clip_format.parse_shape(_INPUT_SHAPE.value) if _INPUT_SHAPE.value else None


def report() -> pathlib.Path | None:
    """Returns the folder of the report to make, if there is to be one."""
    return pathlib.Path(_REPORT.value) if _REPORT.value else None


def settings() -> ExplainSettings:
    """Returns what to explain."""
    wrong = [flag.name for flag in _ONLY_STORES if VIDEO.value and flag.present]
    if wrong:
        raise errors.UserError(f"--{wrong[0]} must be left out with --video, which needs no clip store. Received: both")
    if _INPUT_SHAPE.present and not VIDEO.value:
        raise errors.UserError(
            "--input_shape must be given with --video: clips of a store have theirs. Received: alone"
        )
    return ExplainSettings(
        model=model_flags.source(_RUN.value, _MODEL.value),
        clips=clips_flags.place(_CLIPS.value),
        cache=clips_flags.cache(),
        split=_SPLIT.value,
        limit=_LIMIT.value,
        limit_per_class=_PER_CLASS.value,
        video_ids=tuple(_VIDEO_IDS.value),
        classes=tuple(_CLASSES.value),
        target=_TARGET.value,
        mask=masks.MaskConfig(
            kind=_KIND.value,
            lambda_1=_LAMBDA_1.value,
            lambda_2=_LAMBDA_2.value,
            beta=_BETA.value,
            iterations=_ITERATIONS.value,
            learning_rate=_LEARNING_RATE.value,
            start=_quick(_START),
            compat=_COMPAT.value,
            game=_GAME.value,
            form=_FORM.value,
            area=_AREA.value,
            oracle=_quick(_ORACLE),
            stop=_quick(_STOP),
            ends=_ENDS.value,
        ),
        gradcam=gradcam_maps.GradCamConfig(
            endpoint=_CAM_ENDPOINT.value, weights=_CAM_WEIGHTS.value, score=_CAM_SCORE.value, time=_CAM_TIME.value
        ),
        methods=tuple(_METHODS.value),
        evaluations=_EVALUATIONS.value,
        precision=_PRECISION.value,
        batch_size=_BATCH.value,
        out=pathlib.Path(_OUT.value) if _OUT.value else None,
        overwrite=_OVERWRITE.value,
    )
