-- Products and teams count, too; from now on, triggers keep them.
UPDATE tenant_shares SET bytes = bytes
  + ifnull((SELECT sum(200 + ifnull(octet_length(description), 0)) FROM products
             WHERE products.tenant_id = tenant_shares.tenant_id), 0)
  + ifnull((SELECT sum(200 + octet_length(description)) FROM teams WHERE teams.tenant_id = tenant_shares.tenant_id), 0);
