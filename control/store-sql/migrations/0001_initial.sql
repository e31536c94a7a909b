-- resourceVersion of the newest write, kept apart from the changes so that it survives their retention.
CREATE TABLE store (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO store (id, version) VALUES (1, 0);

-- Resources as they are. `object` is the whole resource as JSON; the other columns repeat what is searched by.
CREATE TABLE resources (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    labels  TEXT NOT NULL,
    object  TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

-- The recent writes, for watches: one row per resourceVersion, without gaps, up to the retention.
CREATE TABLE changes (
    version       INTEGER PRIMARY KEY,
    verb          TEXT NOT NULL CHECK (verb IN ('create', 'update', 'delete')),
    object        TEXT NOT NULL,
    labels_before TEXT
) STRICT;

-- Ids of audit entries and events have no gaps, so that the newest N are those above max(id) - N.
CREATE TABLE audit (
    id    INTEGER PRIMARY KEY,
    kind  TEXT NOT NULL,
    name  TEXT NOT NULL,
    entry TEXT NOT NULL
) STRICT;
CREATE INDEX audit_of ON audit (kind, name);

CREATE TABLE events (
    id    INTEGER PRIMARY KEY,
    kind  TEXT NOT NULL,
    name  TEXT NOT NULL,
    event TEXT NOT NULL
) STRICT;
CREATE INDEX events_about ON events (kind, name);

-- An empty holder: released. The row stays, so that the fencing token keeps growing.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    fencing    INTEGER NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;
