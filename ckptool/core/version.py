"""The one place where the version stands; the build reads it, too."""

VERSION = "0.1.0"
