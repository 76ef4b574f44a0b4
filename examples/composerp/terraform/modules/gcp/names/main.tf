locals {
  hosts = { for store, at in var.stores : store => regex("^([^:,/]+)", at.address)[0] }
}

resource "google_dns_managed_zone" "this" {
  # checkov:skip=CKV_GCP_16: Nobody outside of the network can ask a private zone.
  name       = var.zone
  dns_name   = "${var.name}."
  visibility = "private"

  private_visibility_config {
    networks {
      network_url = var.network_id
    }
  }
}

# The Service of each store leads here, so that programs know none of the provider's names.
resource "google_dns_record_set" "this" {
  for_each     = var.stores
  managed_zone = google_dns_managed_zone.this.name
  name         = "${each.key}.${var.name}."
  type         = each.value.type
  ttl          = 60
  rrdatas      = [each.value.type == "CNAME" ? "${local.hosts[each.key]}." : local.hosts[each.key]]
}
