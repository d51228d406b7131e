"""The course around the package: building and publishing lessons, the doctor, a class."""
