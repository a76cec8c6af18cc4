"""The Relying Party (RFC 9334): guardians, key protectors, custody and release."""
