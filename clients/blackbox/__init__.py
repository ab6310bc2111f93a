"""One suite for any FHIR R4 server, written from the specification alone."""
