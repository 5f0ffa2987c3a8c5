"""Configuration of ESI (placeholder while the lead names are needed by others)."""

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
