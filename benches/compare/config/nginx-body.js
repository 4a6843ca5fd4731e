// Makes a short key of a long body, for nginx.conf.
import crypto from "crypto";

function hash(request) {
    return crypto.createHash("sha256").update(request.variables.request_body).digest("hex");
}

export default { hash };
