"""Jobs: trainings and evaluations in processes of their own.

The tasks are named here, not imported: only the job's process needs Keras.
"""

RUN_TRAINING = "search.jobs.tasks:run_training"
TRAIN_WHOLE = "search.jobs.tasks:train_whole"
EVALUATE_WHOLE = "search.jobs.tasks:evaluate_whole"
MEASURE = "search.jobs.tasks:measure"
CHECK_DEVICE = "search.jobs.tasks:check_device"
