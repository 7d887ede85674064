"""Flags of the commands whose work is cut into units: in which processes, on which machines."""

from absl import flags

from common import launching
from common.launching import Launch

_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Processes. Unset: one for each processor (prepare.py), or one (explain.py, evidence.py).",
    lower_bound=1,
)
_NUM_TASKS = flags.DEFINE_integer(
    "num_tasks", 0, "Calls of this command that share its work, such as the tasks of an array job.", lower_bound=0
)
_TASK = flags.DEFINE_integer("task", 0, "Which of them this is, 0…num_tasks - 1.", lower_bound=0)
_RAY = flags.DEFINE_string(
    "ray", "", "Work as tasks of Ray. local: started on this machine. auto: the cluster it belongs to. Or an address."
)
_CPUS = flags.DEFINE_integer("unit_cpus", 1, "With --ray: cores of a task.", lower_bound=1)
_GPUS = flags.DEFINE_float("unit_gpus", 0.0, "With --ray: GPUs of a task, or a part of one.", lower_bound=0)
ALL = (_WORKERS, _NUM_TASKS, _TASK, _RAY, _CPUS, _GPUS)


def launch(workers: int = 1) -> Launch:
    """Returns how to launch.

    Args:
      workers: processes where the flag is unset and Ray is not asked for.
    """
    if _RAY.value:
        launching.check_ray()  # Now: before models are loaded, and anything is written.
    default = 1 if _RAY.value else workers
    return Launch(
        default if _WORKERS.value is None else _WORKERS.value,
        _NUM_TASKS.value,
        _TASK.value,
        _RAY.value,
        _CPUS.value,
        _GPUS.value,
    )
