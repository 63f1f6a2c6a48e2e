# docs/registry-servers.md explains every line. The ports and GOSSIP_KEY are replaced by server.ts.
server           = true
datacenter       = "dc1"
node_name        = "server-1"
data_dir         = "data"
bind_addr        = "127.0.0.1"
client_addr      = "127.0.0.1"
bootstrap_expect = 1
encrypt          = "GOSSIP_KEY"

# No plaintext at all: HTTP and DNS are off, HTTPS is on.
ports {
  http     = -1
  dns      = -1
  grpc     = -1
  https    = 8501
  server   = 8300
  serf_lan = 8301
  serf_wan = -1
}

# Both sides of every connection show a certificate, and only a server may be a server.
ca_file                = "tls/bundle.pem"
cert_file              = "tls/server.pem"
key_file               = "tls/server.key"
verify_incoming        = true
verify_outgoing        = true
verify_server_hostname = true
tls_min_version        = "tls12"

# Nothing is allowed without a token.
acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true
}

disable_update_check = true
