-- Deliveries, their payloads and their attempts are kept in pieces by the time of acceptance, with which ids begin
-- (UUIDs of version 7), so that what is old goes in one piece: see `partitions.rs`. What was there becomes the
-- first piece, as it is, up to an hour from now; control planes make the pieces after it. Where there is none yet,
-- rows go to the rest.
DO $$
DECLARE
    hour    CONSTANT bigint := 3600;
    upto    CONSTANT bigint := (floor(extract(epoch FROM now()) / hour)::bigint + 2) * hour;
    bound   CONSTANT bytea := decode(lpad(to_hex(upto * 1000), 12, '0') || repeat('0', 20), 'hex');
    one     text;
    first   text;
    columns text;
BEGIN
    FOREACH one IN ARRAY ARRAY['deliveries', 'payloads', 'attempts'] LOOP
        first := one || '_0_' || upto;
        columns := CASE one WHEN 'attempts' THEN 'delivery, number' ELSE 'id' END;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', one, first);
        EXECUTE format('ALTER INDEX %I RENAME TO %I', one || '_pkey', first || '_pkey');
        IF one = 'deliveries' THEN
            ALTER INDEX deliveries_of_account RENAME TO deliveries_of_account_0;
            ALTER INDEX dead_letters RENAME TO dead_letters_0;
            ALTER INDEX held_deliveries RENAME TO held_deliveries_0;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS, PRIMARY KEY (%s)) PARTITION BY RANGE (%s)',
                       one, first, columns, split_part(columns, ',', 1));
        IF one = 'deliveries' THEN
            CREATE INDEX deliveries_of_account ON deliveries (account, id);
            CREATE INDEX dead_letters ON deliveries (account, id) WHERE state = 4;
            CREATE INDEX held_deliveries ON deliveries (destination, due_at) WHERE held_since IS NOT NULL;
        END IF;
        -- The indexes that are there become parts of the new ones.
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)', one, first, bound);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', one || '_rest', one);
    END LOOP;
END
$$;
