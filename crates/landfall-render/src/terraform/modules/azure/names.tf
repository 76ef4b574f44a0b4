variable "name" {
  type        = string
  description = "What the names of the stores end with; the network alone sees them."
}

variable "resource_group" {
  type        = string
  description = "The resource group."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "stores" {
  type        = map(string)
  description = "The stores by their names, each with where clients reach it."
}

resource "azurerm_private_dns_zone" "this" {
  name                = var.name
  resource_group_name = var.resource_group
  tags                = var.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  name                  = "network"
  resource_group_name   = var.resource_group
  private_dns_zone_name = azurerm_private_dns_zone.this.name
  virtual_network_id    = var.network_id
  tags                  = var.tags
}

# The Service of each store leads here, so that programs know none of the provider's names.
resource "azurerm_private_dns_cname_record" "this" {
  for_each            = var.stores
  name                = each.key
  zone_name           = azurerm_private_dns_zone.this.name
  resource_group_name = var.resource_group
  ttl                 = 60
  record              = regex("^([^:,/]+)", each.value)[0]
  tags                = var.tags
}
