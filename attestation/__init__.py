"""The Verifier (RFC 9334): enrolment, challenges, appraisal, modes and health certificates."""
