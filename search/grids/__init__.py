"""The report's grid."""
