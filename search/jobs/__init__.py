"""Jobs: trainings and evaluations in processes of their own.

The tasks are named here, not imported: only the job's process needs Keras.
"""

TRAIN_TRIAL = "search.jobs.tasks:train_trial"
TRAIN_CHILD = "search.jobs.tasks:train_child"
EVALUATE_CHILD = "search.jobs.tasks:evaluate_child"
MEASURE = "search.jobs.tasks:measure"
CHECK_DEVICE = "search.jobs.tasks:check_device"
