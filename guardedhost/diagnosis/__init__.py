"""What stands between a host and its health certificate: collected once, then judged as often as one likes."""
