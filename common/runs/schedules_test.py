import dataclasses

from common.runs.schedules import PlateauSchedule


def test_the_rate_halves_after_two_epochs_without_a_better_loss():
    schedule = PlateauSchedule(1.0, patience=2, factor=0.5)
    history = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.9, 2.0, 2.0, 2.0, 2.0):
        best = schedule.update(loss)
        history.append((best, schedule.learning_rate))
    assert history == [
        (True, 1.0),
        (True, 1.0),
        (False, 1.0),  # Equal is not better.
        (False, 0.5),
        (True, 0.5),
        (False, 0.5),
        (False, 0.25),
        (False, 0.25),
        (False, 0.125),
    ]


def test_a_schedule_goes_on_from_its_fields():
    schedule = PlateauSchedule(1.0, patience=2, factor=0.5)
    for loss in (1.0, 2.0):
        schedule.update(loss)
    copy = PlateauSchedule(**dataclasses.asdict(schedule))
    copy.update(2.0)
    assert copy.learning_rate == 0.5
