"""Jobs: trainings and evaluations in child processes.

Tasks are given by reference, not imported: only the child process needs Keras.
"""

TRAIN_TRIAL = "search.jobs.tasks:train_trial"
TRAIN_CHILD = "search.jobs.tasks:train_child"
EVALUATE_CHILD = "search.jobs.tasks:evaluate_child"
CHECK_DEVICE = "search.jobs.tasks:check_device"
