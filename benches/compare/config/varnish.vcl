# Varnish as a cache of embeddings: the body of the POST is part of the key. {WORDS} are filled in by the comparison.
vcl 4.1;

import bodyaccess;
import std;

backend service {
    .host = "{UPSTREAM_HOST}";
    .port = "{UPSTREAM_PORT}";
}

sub vcl_recv {
    # The body must be in memory before it can be hashed.
    if (req.method == "POST" && std.cache_req_body(4MB)) {
        return (hash);
    }
    return (pass);
}

sub vcl_hash {
    hash_data(req.url);
    # Callers with other credentials get no entry of this one, as with vecho.
    hash_data(req.http.authorization);
    bodyaccess.hash_req_body();
    return (lookup);
}

sub vcl_backend_fetch {
    # Varnish would fetch with GET.
    set bereq.method = "POST";
}

sub vcl_backend_response {
    if (beresp.status == 200) {
        set beresp.ttl = 7d;
        set beresp.grace = 0s;
    } else {
        set beresp.uncacheable = true;
    }
    return (deliver);
}
