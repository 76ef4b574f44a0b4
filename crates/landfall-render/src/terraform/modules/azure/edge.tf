variable "name" {
  type        = string
  description = "What the names of everything at the edge begin with: letters and digits."
}

variable "resource_group" {
  type        = string
  description = "The resource group."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "hosts" {
  type        = list(string)
  description = "The names under which users reach the platform."
}

variable "zone" {
  type        = string
  description = "The DNS zone that the names are in."
}

variable "zone_resource_group" {
  type        = string
  description = "The resource group of the DNS zone."
}

variable "origin" {
  type        = string
  description = "The name of the load balancer of the cluster's ingress."
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

data "azurerm_dns_zone" "this" {
  name                = var.zone
  resource_group_name = var.zone_resource_group
}

resource "azurerm_cdn_frontdoor_profile" "this" {
  name                = var.name
  resource_group_name = var.resource_group
  sku_name            = "Premium_AzureFrontDoor"
  tags                = var.tags
}

resource "azurerm_cdn_frontdoor_endpoint" "this" {
  name                     = var.name
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id
  tags                     = var.tags
}

resource "azurerm_cdn_frontdoor_origin_group" "this" {
  name                     = "ingress"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id

  load_balancing {}

  health_probe {
    protocol            = "Https"
    interval_in_seconds = 30
  }
}

resource "azurerm_cdn_frontdoor_origin" "this" {
  name                           = "ingress"
  cdn_frontdoor_origin_group_id  = azurerm_cdn_frontdoor_origin_group.this.id
  host_name                      = var.origin
  certificate_name_check_enabled = true
  enabled                        = true
}

resource "azurerm_cdn_frontdoor_custom_domain" "this" {
  for_each                 = toset(var.hosts)
  name                     = replace(each.key, ".", "-")
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id
  dns_zone_id              = data.azurerm_dns_zone.this.id
  host_name                = each.key

  # The certificate is the provider's, and renewed by it.
  tls {
    certificate_type = "ManagedCertificate"
  }
}

resource "azurerm_cdn_frontdoor_route" "this" {
  name                            = "all"
  cdn_frontdoor_endpoint_id       = azurerm_cdn_frontdoor_endpoint.this.id
  cdn_frontdoor_origin_group_id   = azurerm_cdn_frontdoor_origin_group.this.id
  cdn_frontdoor_origin_ids        = [azurerm_cdn_frontdoor_origin.this.id]
  cdn_frontdoor_custom_domain_ids = values(azurerm_cdn_frontdoor_custom_domain.this)[*].id
  patterns_to_match               = ["/*"]
  supported_protocols             = ["Http", "Https"]
  https_redirect_enabled          = true
  forwarding_protocol             = "HttpsOnly"
}

resource "azurerm_dns_txt_record" "validation" {
  for_each            = toset(var.hosts)
  name                = trimsuffix("_dnsauth.${trimsuffix(each.key, var.zone)}", ".")
  zone_name           = data.azurerm_dns_zone.this.name
  resource_group_name = var.zone_resource_group
  ttl                 = 300
  tags                = var.tags

  record {
    value = azurerm_cdn_frontdoor_custom_domain.this[each.key].validation_token
  }
}

resource "azurerm_dns_cname_record" "host" {
  for_each            = toset(var.hosts)
  name                = trimsuffix(trimsuffix(each.key, var.zone), ".")
  zone_name           = data.azurerm_dns_zone.this.name
  resource_group_name = var.zone_resource_group
  ttl                 = 60
  record              = azurerm_cdn_frontdoor_endpoint.this.host_name
  tags                = var.tags
}

resource "azurerm_cdn_frontdoor_firewall_policy" "this" {
  count               = var.waf ? 1 : 0
  name                = var.name
  resource_group_name = var.resource_group
  sku_name            = azurerm_cdn_frontdoor_profile.this.sku_name
  mode                = "Prevention"
  tags                = var.tags

  managed_rule {
    type    = "Microsoft_DefaultRuleSet"
    version = "2.1"
    action  = "Block"
  }

  managed_rule {
    type    = "Microsoft_BotManagerRuleSet"
    version = "1.1"
    action  = "Block"
  }

  custom_rule {
    name                           = "rate"
    type                           = "RateLimitRule"
    action                         = "Block"
    priority                       = 10
    rate_limit_duration_in_minutes = 5
    rate_limit_threshold           = var.rate_limit

    match_condition {
      match_variable = "RequestUri"
      operator       = "Contains"
      match_values   = ["/"]
    }
  }
}

resource "azurerm_cdn_frontdoor_security_policy" "this" {
  count                    = var.waf ? 1 : 0
  name                     = var.name
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id

  security_policies {
    firewall {
      cdn_frontdoor_firewall_policy_id = azurerm_cdn_frontdoor_firewall_policy.this[0].id

      association {
        patterns_to_match = ["/*"]

        dynamic "domain" {
          for_each = azurerm_cdn_frontdoor_custom_domain.this

          content {
            cdn_frontdoor_domain_id = domain.value.id
          }
        }
      }
    }
  }
}

output "address" {
  description = "The name of the edge."
  value       = azurerm_cdn_frontdoor_endpoint.this.host_name
}
