variable "name" {
  type        = string
  description = "What the names of everything at the edge begin with."
}

variable "hosts" {
  type        = list(string)
  description = "The names under which users reach the platform."
}

variable "zone" {
  type        = string
  description = "The managed DNS zone that the names are in."
}

variable "cdn" {
  type        = bool
  description = "Whether a content delivery network stands in front."
}

variable "waf" {
  type        = bool
  description = "Whether a web application firewall looks at requests."
}

variable "rate_limit" {
  type        = number
  description = "How many requests one address may make in five minutes."
  default     = 2000
}

variable "network_endpoint_groups" {
  type        = list(string)
  description = "The endpoints of the cluster's ingress, by zone; empty until it is there."
  default     = []
}

resource "google_compute_global_address" "this" {
  name = var.name
}

data "google_dns_managed_zone" "this" {
  name = var.zone
}

resource "google_dns_record_set" "host" {
  for_each     = toset(var.hosts)
  managed_zone = data.google_dns_managed_zone.this.name
  name         = "${each.key}."
  type         = "A"
  ttl          = 60
  rrdatas      = [google_compute_global_address.this.address]
}

resource "google_certificate_manager_certificate" "this" {
  name = var.name

  managed {
    domains = var.hosts
  }
}

resource "google_certificate_manager_certificate_map" "this" {
  name = var.name
}

resource "google_certificate_manager_certificate_map_entry" "this" {
  for_each     = toset(var.hosts)
  name         = replace(each.key, ".", "-")
  map          = google_certificate_manager_certificate_map.this.name
  hostname     = each.key
  certificates = [google_certificate_manager_certificate.this.id]
}

resource "google_compute_security_policy" "this" {
  # checkov:skip=CKV_GCP_73: Log4j's hole is among the signatures of `cve-canary`, in the list below.
  count = var.waf ? 1 : 0
  name  = var.name

  dynamic "rule" {
    for_each = ["sqli-v33-stable", "xss-v33-stable", "lfi-v33-stable", "rce-v33-stable", "cve-canary"]

    content {
      action   = "deny(403)"
      priority = 1000 + rule.key

      match {
        expr {
          expression = "evaluatePreconfiguredWaf('${rule.value}')"
        }
      }
    }
  }

  rule {
    action   = "throttle"
    priority = 2000

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }

    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"

      rate_limit_threshold {
        count        = var.rate_limit
        interval_sec = 300
      }
    }
  }

  rule {
    action   = "allow"
    priority = 2147483647

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}

resource "google_compute_health_check" "this" {
  name = var.name

  tcp_health_check {
    port_specification = "USE_SERVING_PORT"
  }
}

resource "google_compute_backend_service" "this" {
  name                  = var.name
  protocol              = "HTTPS"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  enable_cdn            = var.cdn
  security_policy       = one(google_compute_security_policy.this[*].id)
  health_checks         = [google_compute_health_check.this.id]

  dynamic "backend" {
    for_each = toset(var.network_endpoint_groups)

    content {
      group                 = backend.value
      balancing_mode        = "RATE"
      max_rate_per_endpoint = 1000
    }
  }

  log_config {
    enable      = true
    sample_rate = 1
  }
}

resource "google_compute_url_map" "this" {
  name            = var.name
  default_service = google_compute_backend_service.this.id
}

resource "google_compute_ssl_policy" "this" {
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_target_https_proxy" "this" {
  name            = var.name
  url_map         = google_compute_url_map.this.id
  ssl_policy      = google_compute_ssl_policy.this.id
  certificate_map = "//certificatemanager.googleapis.com/${google_certificate_manager_certificate_map.this.id}"
}

resource "google_compute_global_forwarding_rule" "this" {
  name                  = var.name
  ip_address            = google_compute_global_address.this.id
  target                = google_compute_target_https_proxy.this.id
  port_range            = "443"
  load_balancing_scheme = "EXTERNAL_MANAGED"
}

output "address" {
  description = "The address of the edge."
  value       = google_compute_global_address.this.address
}
